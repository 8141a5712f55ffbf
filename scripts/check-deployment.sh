#!/usr/bin/env bash
# Checks what deploys the project; a part of `make check`. What this machine cannot check is said in a line that begins
# with "left out:", and is a failure with CI set.
#
# TERRAFORM_VALIDATE   the command that validates, run in terraform/ (default: terraform validate); its `init` and
#                      `test` are used as well
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
: "${TERRAFORM_VALIDATE:=terraform validate}"
firebase_tools=15.34.2 # its package has the schema of firebase.json
log=$(mktemp)
trap 'rm -f "$log"' EXIT

left_out() {
    echo "left out: $1" >&2
    [ -z "${CI:-}" ]
}

terraform_part() {
    terraform fmt -check -recursive terraform
    cd terraform
    if ! ${TERRAFORM_VALIDATE%validate}init -backend=false -input=false -no-color >"$log" 2>&1; then
        grep -q 'Failed to query available provider packages\|Failed to install provider' "$log" || { cat "$log" >&2; return 1; }
        left_out "terraform validate and test: no provider can be downloaded"
        return
    fi
    $TERRAFORM_VALIDATE -no-color
    ${TERRAFORM_VALIDATE%validate}test -no-color >"$log" 2>&1 || { cat "$log" >&2; return 1; }
    tail -n 1 "$log"
}

firebase_schema() { # the schema's file
    local file=.venv/firebase-config-$firebase_tools.json
    if [ ! -s "$file" ]; then
        (cd .venv && npm pack --silent "firebase-tools@$firebase_tools") >/dev/null 2>&1 || return 1
        tar -xzOf ".venv/firebase-tools-$firebase_tools.tgz" package/schema/firebase-config.json >"$file"
        rm ".venv/firebase-tools-$firebase_tools.tgz"
    fi
    echo "$file"
}

check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml
if schema=$(firebase_schema); then
    check-jsonschema --schemafile "$schema" firebase.json
else
    left_out "firebase.json: its schema comes with firebase-tools, which npm cannot get"
fi
if command -v terraform >/dev/null; then
    (terraform_part)
else
    left_out "terraform: it is not on this machine (https://developer.hashicorp.com/terraform/install)"
fi
