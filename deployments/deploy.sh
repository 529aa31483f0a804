#!/usr/bin/env bash
# Prepare the server of PREFECT_API_URL and send it the deployments; arguments go to `prefect deploy`, default --all.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${PREFECT_API_URL:?set it to the address of the standing server, such as http://127.0.0.1:4200/api}"
: "${LAYERLORE_HOME:?set it to the folder in which runs start, such as /srv/layerlore}"
: "${LAYERLORE_STORE:?set it to the store: an absolute folder, or s3://bucket/prefix}"
export LAYERLORE_SCHEDULER=${LAYERLORE_SCHEDULER:-tls://127.0.0.1:8786}
for place in "$LAYERLORE_HOME" "$LAYERLORE_STORE" "$LAYERLORE_SCHEDULER"; do
  case $place in
    /*) ;;
    *@* | *\?*) echo "error: a place holds no credentials; runs read theirs from the environment or a profile" >&2; exit 2 ;;
  esac
done
for place in "$LAYERLORE_HOME" "$LAYERLORE_STORE"; do
  case $place in
    /* | s3://*) ;;
    *) echo "error: $place is relative; deployed runs do not start in this folder" >&2; exit 2 ;;
  esac
done
python "$here/prepare.py"
if [ $# -eq 0 ]; then set -- --all; fi
exec prefect --no-prompt deploy --prefect-file "$here/prefect.yaml" "$@"
