#!/bin/sh
# Makes ./state with folders, passwords and the archives' certificates, and .env; run it once, under the
# account that the containers shall have. What is there already stays as it is.
set -eu
umask 077
cd "$(dirname "$0")"
test "$(id -u)" -ne 0 || { echo "Run this under an account without rights, not as root." >&2; exit 2; }
mkdir -p state/server
for site in north south west; do
  secrets=state/secrets/$site
  mkdir -p "state/$site" "state/archive-$site" "state/images/$site" "$secrets"
  test -e "$secrets/archive-password" || openssl rand -hex 24 > "$secrets/archive-password"
  test -e "$secrets/users.json" || printf '{"RegisteredUsers": {"wardround": "%s"}}\n' \
    "$(cat "$secrets/archive-password")" > "$secrets/users.json"
  # The archive's own certificate is the only one that its site trusts.
  test -e "$secrets/archive.pem" || {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -sha256 \
      -subj "/CN=archive-$site" -addext "subjectAltName=DNS:archive-$site" \
      -keyout "$secrets/key.pem" -out "$secrets/archive-ca.pem" 2>/dev/null
    cat "$secrets/archive-ca.pem" "$secrets/key.pem" > "$secrets/archive.pem"
    rm "$secrets/key.pem"
  }
  test -e "$secrets/pacs.toml" || printf '%s\n' '[dicomweb]' \
    "url = \"https://archive-$site:8042/dicom-web\"" 'user = "wardround"' \
    'password_file = "/run/secrets/archive-password"' 'ca_file = "/run/secrets/archive-ca.pem"' \
    > "$secrets/pacs.toml"
done
test -e .env || sed -e "s/^WARDROUND_UID=.*/WARDROUND_UID=$(id -u)/" \
  -e "s/^WARDROUND_GID=.*/WARDROUND_GID=$(id -g)/" .env.example > .env
echo "Made state/ and .env for the account $(id -u):$(id -g)."
