"""Which replicas are fit to be asked: circuit breakers, replicas that fall silent, requests that bring replicas down."""
