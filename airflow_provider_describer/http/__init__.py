"""One call: what to send and when (flow, policy, limiter), and the sending (transport)."""
