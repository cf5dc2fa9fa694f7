#!/bin/sh
# Backs up the database at once and then every BACKUP_EVERY_S seconds into /backups, and keeps the newest BACKUP_KEEP.
# A backup appears under its name only when it is whole and its list of contents can be read. `check`: is one recent?
set -eu
every_s=${BACKUP_EVERY_S:?seconds between two backups}
keep=${BACKUP_KEEP:?number of backups to keep}

if [ "${1:-}" = check ]; then
    newest=$(find /backups -name 'codelupe-*.dump' -mmin "-$((every_s / 60 + 60))" | head -n 1)
    echo "${newest:-no backup of the last $every_s seconds}"
    [ -n "$newest" ]
    exit
fi

umask 077
# libpq reads passwords from a file that only its owner can read: never from the environment or the command line.
export PGPASSFILE=/tmp/passfile PGHOST=postgres PGUSER=codelupe PGDATABASE=codelupe
printf 'postgres:5432:*:codelupe:%s\n' "$(cat /run/secrets/database_password)" > "$PGPASSFILE"

while true; do
    name=/backups/codelupe-$(date -u +%Y%m%dT%H%M%SZ).dump
    rm -f /backups/*.part
    if pg_dump --format=custom --file="$name.part" && pg_restore --list "$name.part" > /dev/null && sync "$name.part"; then
        mv "$name.part" "$name"
        echo "{\"event\": \"backup_written\", \"file\": \"$name\", \"bytes\": $(stat -c %s "$name")}"
        find /backups -name 'codelupe-*.dump' | sort -r | tail -n "+$((keep + 1))" | xargs -r rm -f
        wait_s=$every_s
    else
        echo '{"event": "backup_failed", "message": "see above; next try in 60 s"}' >&2
        wait_s=60
    fi
    sleep "$wait_s"
done
