"""Where the rehearsal's vendor packages come from: given .deb files, the vendors' repositories, or substitutes."""
