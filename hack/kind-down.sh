#!/usr/bin/env bash
# Remove the cluster of kind-up.sh, and nothing else.
set -euo pipefail

readonly CLUSTER=certrenewal

command -v kind >/dev/null || {
  echo "kind is needed: https://kind.sigs.k8s.io" >&2
  exit 1
}
if kind get clusters 2>/dev/null | grep -qx "${CLUSTER}"; then
  kind delete cluster --name "${CLUSTER}"
else
  echo "There is no kind cluster ${CLUSTER}."
fi
