"""`python -m bench`: measures what the collector promises, and prints it beside the limits."""
