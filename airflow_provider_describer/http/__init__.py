"""One call: what to send and when (flow, retry), and the sending (client, transport)."""
