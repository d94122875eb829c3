#!/usr/bin/env bash
# Every Kubernetes manifest holds against the API's schemas, strictly: no unknown field, no wrong type.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
validate=${TENON_CACHE_DIR:-$HOME/.cache/tenon}/venv-tests/bin/kubernetes-validate
manifests=()
for file in "$root"/deploy/k8s/*.yaml; do
  [ "$(basename "$file")" = kustomization.yaml ] || manifests+=("$file")
done
"$validate" --strict -k 1.35 "${manifests[@]}"

# The check itself can fail: a manifest with a misspelt field must not pass.
broken=$(mktemp --suffix=.yaml)
trap 'rm -f "$broken"' EXIT
sed 's/terminationGracePeriodSeconds/terminationGracePeriodSecond/' "$root/deploy/k8s/deployment.yaml" >"$broken"
if "$validate" --strict -k 1.35 "$broken" >/dev/null 2>&1; then
  echo "a manifest with an unknown field passed" >&2
  exit 1
fi

# kustomization.yaml names each of the others, and nothing that is not there.
diff <(cd "$root/deploy/k8s" && ls ./*.yaml | sed 's|./||' | grep -v kustomization | sort) \
     <(sed -n '/^resources:/,$p' "$root/deploy/k8s/kustomization.yaml" | sed -n 's/^  - //p' | sort)
