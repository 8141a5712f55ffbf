#!/usr/bin/env bash
# Gives the secrets their first values, which Terraform must not know: the platform key, and a database user with its
# URL. What has a value keeps it, so it may be run again.
#
#   terraform/secrets.sh PROJECT
set -euo pipefail
project=${1:?usage: terraform/secrets.sh PROJECT}

has_value() {
    [ -n "$(gcloud secrets versions list "$1" --project="$project" --filter=state=enabled --limit=1 --format='value(name)')" ]
}

add() { # the value comes from standard input
    gcloud secrets versions add "$1" --project="$project" --data-file=- >/dev/null
    echo "$1: added"
}

if has_value platform-key; then
    echo "platform-key: has a value"
else
    head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' | add platform-key
fi

if has_value database-url; then
    echo "database-url: has a value"
else
    password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
    instance=$(gcloud sql instances describe recado --project="$project" --format='value(connectionName)')
    if gcloud sql users list --instance=recado --project="$project" --format='value(name)' | grep -qx recado; then
        gcloud sql users set-password recado --instance=recado --project="$project" --password="$password" --quiet
    else
        gcloud sql users create recado --instance=recado --project="$project" --password="$password" --quiet
    fi
    printf 'postgresql+pg8000://recado:%s@/recado?unix_sock=/cloudsql/%s/.s.PGSQL.5432' "$password" "$instance" |
        add database-url
fi
