"""Molecule's scenarios in lanes: as many at a time as there are two processors for, each on a host of its own.

A lane is this host's programs with networks, processes, control groups and a copy of the checkout of its own, so that each has its
virtual Pi. Needs what the rehearsal needs: root on Linux.
"""
