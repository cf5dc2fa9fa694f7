#!/bin/sh
# Backs the database up at once and then every BACKUP_EVERY_S seconds into backups/, and keeps the newest BACKUP_KEEP.
# `backup.sh check` ends with 0 where the newest backup is not older than that and an hour: the container's health.
set -eu
every_s=${BACKUP_EVERY_S:?seconds between two backups}
keep=${BACKUP_KEEP:?number of backups to keep}

if [ "${1:-}" = check ]; then
    newest=$(find "$CODELUPE_HOME/backups" -name 'codelupe-*.zip' -mmin "-$((every_s / 60 + 60))" | sort | tail -n 1)
    echo "${newest:-no backup of the last $every_s seconds}"
    [ -n "$newest" ]
    exit
fi

while true; do
    if codelupe db backup --keep "$keep" --json; then
        wait_s=$every_s
    else
        echo '{"event": "backup_failed", "message": "the lines above say why; next try in 60 s"}' >&2
        wait_s=60
    fi
    sleep "$wait_s"
done
