"""Which sites are there, how they are asked, and how long they are waited for."""
