"""Who is who: the certificate authority, invitations, members, revocation."""
