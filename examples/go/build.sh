#!/usr/bin/env bash
# Makes the stubs of ../../proto under pb/ and builds ./example. Needs Go, and Python with grpcio-tools (in it
# is protoc): PYTHON names it, python3 is the default.
#
#   build.sh [where to put the program]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
program=${1:-example}
plugins=${PLUGINS:-$PWD/.plugins}
if [ ! -x "$plugins/protoc-gen-go-grpc" ]; then
  GOBIN="$plugins" go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
  GOBIN="$plugins" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
fi

# The contracts name no Go package, so that is said here: rapport/<domain>/v1 becomes example/pb/<domain>.
options=()
files=()
for domain in catalog collect events features recommend; do
  for file in ../../proto/rapport/"$domain"/v1/*.proto; do
    name=${file#../../proto/}
    files+=("$name")
    options+=("--go_opt=M$name=example/pb/$domain" "--go-grpc_opt=M$name=example/pb/$domain")
  done
done
rm -rf pb
"${PYTHON:-python3}" -m grpc_tools.protoc -I ../../proto \
  --plugin="$plugins/protoc-gen-go" --plugin="$plugins/protoc-gen-go-grpc" \
  --go_out=. --go_opt=module=example --go-grpc_out=. --go-grpc_opt=module=example "${options[@]}" "${files[@]}"
go build -o "$program" .
