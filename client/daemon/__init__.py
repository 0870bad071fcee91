"""The long-running process of a site: asks the server for work and has its worker do it."""
