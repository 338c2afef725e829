#!/usr/bin/env bash
# A kind cluster with step-ca and certrenewal, and one certificate in it, from three annotations to its renewal.
# May be run again: what is there already is kept and brought up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CLUSTER=certrenewal
readonly IMAGE=certrenewal:kind
readonly CA=step-certificates # release, Service and prefix of its objects
readonly CA_URL="https://${CA}.step.svc.cluster.local"
readonly MANIFESTS=tests/node/manifests # the tests on a real node run the same
readonly STEP_CHART="${STEP_CHART:->=1.28.0 <2.0.0}"

main() {
  check_tools
  step "1. A kind cluster" create_cluster
  step "2. The image, built and loaded" load_image
  step "3. step-ca, by its own chart" install_ca
  step "4. certrenewal, by its chart" install_certrenewal
  step "5. A TLS server with Secret web-tls (empty, with three annotations), and a client of it" order_certificate
  step "6. The renewal, before two thirds of the certificate's life: about three minutes" await_renewal
  explain
}

# One step: its title, then the function that does it. `within` counts from its begin.
step() {
  printf '\n=== %s\n' "$1"
  step_began="${SECONDS}"
  "$2"
}

# Ends the script where the step has taken longer than so many seconds.
within() {
  ((SECONDS - step_began < $1)) || fail "$2"
}

check_tools() {
  need docker "https://docs.docker.com/engine/install"
  need kind "https://kind.sigs.k8s.io"
  need kubectl "https://kubernetes.io/docs/tasks/tools"
  need helm "https://helm.sh/docs/intro/install"
  docker info >/dev/null 2>&1 || fail "Docker does not answer: start it, or look at \`docker info\`"
  [[ -f requirements.lock ]] || fail "requirements.lock is missing: make lock"
}

need() {
  command -v "$1" >/dev/null || fail "$1 is needed: $2"
}

fail() {
  echo "$*" >&2
  exit 1
}

k() {
  kubectl --context "kind-${CLUSTER}" "$@"
}

h() {
  helm --kube-context "kind-${CLUSTER}" "$@"
}

create_cluster() {
  if kind get clusters 2>/dev/null | grep -qx "${CLUSTER}"; then
    echo "There already."
  else
    kind create cluster --config kind-config.yaml --wait 120s
  fi
}

load_image() {
  docker build --tag "${IMAGE}" .
  kind load docker-image "${IMAGE}" --name "${CLUSTER}"
}

install_ca() {
  if ! h status "${CA}" --namespace step >/dev/null 2>&1; then
    h install "${CA}" step-certificates --repo https://smallstep.github.io/helm-charts --version "${STEP_CHART}" \
      --namespace step --create-namespace --values - <<'VALUES'
ca:
  name: kind
  provisioner:
    name: admin
  db:
    persistent: false # a CA for trying things out, which forgets what it issued when it is restarted
VALUES
  fi
  echo "Waiting for its Job to make the keys …"
  until root_certificate | grep -q CERTIFICATE; do
    within 300 "step-ca has no root certificate: kubectl get jobs,pods -n step"
    sleep 2
  done
  k rollout status "statefulset/${CA}" --namespace step --timeout 180s
}

root_certificate() {
  k get configmap "${CA}-certs" --namespace step --output 'go-template={{ index .data "root_ca.crt" }}'
}

fingerprint() {
  root_certificate | sed '/-----/d' | base64 --decode | sha256 | cut -d ' ' -f 1
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}

install_certrenewal() {
  local root
  root="$(fingerprint)"
  h upgrade certrenewal charts/certrenewal --install --namespace certrenewal --create-namespace --wait --timeout 120s \
    --values - <<VALUES
image: {repository: ${IMAGE%:*}, tag: "${IMAGE#*:}", pullPolicy: Never}
authority:
  create: true
  url: ${CA_URL}
  fingerprint: "${root}"
  provisioner:
    name: admin
    passwordSecretRef: {namespace: step, name: ${CA}-provisioner-password, key: password}
  policy:
    - namespaces: [shop]
      names: ["*.shop.example.com"]
VALUES
  # The image's name stays the same: pods of an earlier run have to be told.
  k rollout restart deployment/certrenewal --namespace certrenewal
  k rollout status deployment/certrenewal --namespace certrenewal --timeout 120s
  k wait certauthority/default --for condition=Ready --timeout 60s
  k get certauthorities
}

order_certificate() {
  k apply -f "${MANIFESTS}/shop.yaml"
  k create configmap apps --namespace shop --from-file tests/node/apps/server.py --from-file tests/node/apps/client.py \
    --dry-run=client --output yaml | k apply -f -
  k apply -f "${MANIFESTS}/web.yaml"
  until k get certrenewal web-tls --namespace shop >/dev/null 2>&1; do
    within 60 "no CertRenewal was made: kubectl logs -n certrenewal deployment/certrenewal"
    sleep 1
  done
  k wait certrenewal/web-tls --namespace shop --for condition=Ready --timeout 60s
  k rollout status deployment/web --namespace shop --timeout 180s
  k apply -f "${MANIFESTS}/client.yaml"
  k wait pod/client --namespace shop --for condition=Ready --timeout 60s
  k get certrenewals --namespace shop
}

await_renewal() {
  local first now
  first="$(serial)"
  until now="$(serial)" && [[ -n "${now}" && "${now}" != "${first}" ]]; do
    within 360 "no renewal: kubectl describe certrenewal -n shop web-tls"
    sleep 10
    k get certrenewals --namespace shop --no-headers
  done
  k rollout status deployment/web --namespace shop --timeout 120s
  k get certrenewals --namespace shop --output wide
  k events --namespace shop --for certrenewal/web-tls
  count_connections
}

count_connections() {
  local all failed
  all="$(k logs client --namespace shop | grep -c '"seconds"')"
  failed="$(k logs client --namespace shop | grep -c '"error"' || true)"
  echo "The client connected ${all} times; ${failed} of them failed."
}

serial() {
  k get certrenewal web-tls --namespace shop --output jsonpath='{.status.certificate.serial}'
}

explain() {
  cat <<TEXT

It all keeps running, and the certificate is renewed every few minutes; \`make kind-down\` removes the cluster.

  kubectl config use-context kind-${CLUSTER}
  kubectl get certrenewals -n shop -w
  kubectl describe certrenewal -n shop web-tls
TEXT
}

main "$@"
