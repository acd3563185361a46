"""What ``up``, ``down`` and ``restart`` do beyond one call: plan, hand the plan over, wait, take down."""
