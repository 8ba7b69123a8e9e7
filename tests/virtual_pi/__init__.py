"""A virtual Pi: a real Debian machine under systemd-nspawn, booted from a blank card beside a simulated power room.

Run it as root from the top of the checkout: ``python -m tests.virtual_pi up|status|reboot|power-cut|wan|down``.
"""
