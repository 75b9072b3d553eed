#!/usr/bin/env bash
# Makes plotly.min.js: plotly.js as released to npm, with the traces of bundle.js alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=4.1.1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true}' > package.json
npm install --no-audit --no-fund --ignore-scripts --omit=dev "plotly.js@$version"
npm install --no-audit --no-fund esbuild@0.28.2
cp "$here/bundle.js" .
node_modules/.bin/esbuild bundle.js --bundle --minify --format=iife --global-name=Plotly --target=es2020 \
  --define:global=window --legal-comments=eof --outfile=plotly.min.js \
  --banner:js="/* plotly.js v$version: scatter bar contour heatmap scatter3d surface
$(cat node_modules/plotly.js/LICENSE) */"
cp plotly.min.js node_modules/plotly.js/LICENSE "$here"
