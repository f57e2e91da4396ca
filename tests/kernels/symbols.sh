#!/usr/bin/env bash
# symbols.sh isa object... isa object...: object files compiled for a newer CPU must not define anything that the
# linker could pick for the rest of the program. So: no weak symbols, and every exported one is in lathe::<isa>.
set -euo pipefail
isa="" failed=0 objects=0
for argument; do
  case "$argument" in
    *.o) ;;
    *) isa=$argument; continue ;;
  esac
  objects=$((objects + 1))
  if nm "$argument" | grep -E ' [uvVwW] '; then echo "symbols: weak symbols in $argument" >&2; failed=1; fi
  if nm --defined-only --extern-only --demangle "$argument" | grep -v " T lathe::$isa::"; then
    echo "symbols: exported outside lathe::$isa in $argument" >&2; failed=1
  fi
done
[ "$objects" -gt 0 ] || { echo "symbols: no object files given" >&2; exit 1; }
exit "$failed"
