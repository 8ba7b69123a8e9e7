"""Cuts the power of the virtual Pi, or kills the laptop's side, at random moments of site.yml, and runs it again.

Whatever half-done state a cut leaves, a plain re-run of site.yml must end well, and the next one must change nothing.
Needs what the rehearsal needs: root on Linux.
"""
