"""The site folder: settings, credentials, device, state, and how a site joins a server."""
