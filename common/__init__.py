"""What both sides must agree on; imports none of the other folders."""
