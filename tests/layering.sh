#!/usr/bin/env bash
# The architecture, checked: a folder of src/ includes itself and the folders on its USES line (transitively),
# and every USES line points to a lower layer. `models` definitions may include graph/ only.
set -euo pipefail
cd "$(dirname "$0")/../src"
declare -A layer=([core]=0 [quant]=1 [text]=1 [graph]=2 [kernels]=2 [io]=2 [models]=3 [runtime]=4 [eval]=5
                  [engine]=6 [compress]=6 [export]=6 [search]=7 [server]=7 [cli]=8)
failed=0
fail() { echo "layering: $*" >&2; failed=1; }

uses() { tr '\n' ' ' < "$1/CMakeLists.txt" | grep -oP 'lathe_library\([^)]*' | grep -oP 'USES\s+\K[a-z ]+' || true; }
closure() {
  local todo="$1" seen=""
  while [ -n "${todo// /}" ]; do
    set -- $todo; local head=$1; shift; todo="$*"
    case " $seen " in *" $head "*) continue ;; esac
    seen="$seen $head"; todo="$todo $(uses "$head")"
  done
  echo "$seen"
}

for folder in */; do
  folder=${folder%/}
  [ -f "$folder/CMakeLists.txt" ] || continue
  [ -n "${layer[$folder]:-}" ] || { fail "src/$folder has no layer; add it to tests/layering.sh and docs/architecture.md"; continue; }
  for used in $(uses "$folder"); do
    [ "${layer[$used]:-99}" -lt "${layer[$folder]}" ] || fail "src/$folder (layer ${layer[$folder]}) USES $used (layer ${layer[$used]:-?}): arrows point down"
  done
  allowed=" $(closure "$folder") "
  while IFS=: read -r file line include; do
    target=$(sed -E 's/.*"([a-z0-9_]+)\/.*/\1/' <<< "$include")
    case "$allowed" in *" $target "*) ;; *) fail "src/$file:$line includes $target/, which $folder does not USE" ;; esac
  done < <(grep -rnE '^#include "[a-z0-9_]+/' "$folder" --include='*.h' --include='*.cpp' --include='*.inl' || true)
done

# Definitions record a graph and know nothing else. These six are the loader:
for file in models/*.cpp; do
  case "$file" in models/model.cpp | models/names.cpp | models/load_adapter.cpp | models/load_chat_format.cpp | models/load_tokenizer.cpp | models/load_transforms.cpp) continue ;; esac
  if grep -nE '^#include "(io|quant|kernels|runtime|text)/' "$file"; then fail "src/$file is a definition: it may include core/, graph/ and models/ only"; fi
done
# Types of the namespace lathe: two of a name are one to the linker, which keeps one's functions for both.
types() {
  find . -name '*.h' -exec awk '
    FNR == 1 { scope = "" }
    /^namespace/ { scope = scope "/" ($2 == "{" ? "" : $2) }
    /^}  \/\/ namespace/ { sub("/[^/]*$", "", scope) }
    scope == "/lathe" && /^(struct|class) [A-Za-z0-9]+( final)?( : .*)? {/ { print $2, FILENAME }' {} +
}
while read -r name; do fail "two headers define '$name': $(types | awk -v name="$name" '$1 == name { print $2 }' | xargs)"; done < <(types | awk '{ print $1 }' | sort | uniq -d)

# Documents that comments cite, by name or by number. (Not the paths of URLs.)
cd ..
while IFS=: read -r file line cited; do
  compgen -G "$cited*" > /dev/null || fail "$file:$line cites $cited, which is not there"
done < <(grep -rnoP '(?<![\w/.-])docs/[\w/-]+(\.md|\.yaml)?' src tests bench fuzz --include='*.h' --include='*.cpp' --include='*.inl')

[ "$failed" = 0 ] && echo "layering: ok"
exit "$failed"
