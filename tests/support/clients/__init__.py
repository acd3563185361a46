"""Programs made with other people's client libraries, and the requests that these send."""
