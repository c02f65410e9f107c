#!/bin/sh
# Regenerates generated/open_inference_pb.ts from open_inference.proto.
# Needs protoc (Debian: protobuf-compiler) once; the generated file is committed. Run it from the repository root.
set -eu
protoc -I runtime/src/oip \
  --plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es \
  --es_out=runtime/src/oip/generated --es_opt=target=ts,import_extension=js \
  open_inference.proto
