# For command-line tests: TAP, a scratch folder, and the program. Source it, call the checks, end with `done_testing`.
set -u
QUIRE=${QUIRE:-$PWD/build/bin/quire}
SHARED=${SHARED:-$PWD/../shared}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
DEMO=$ROOT/examples/demo
T=$(mktemp -d)
trap 'chmod -R u+rwx "$T" 2>/dev/null; rm -rf "$T"' EXIT
n=0 bad=0

ok() { n=$((n + 1)); echo "ok $n - $*"; }
not_ok() { n=$((n + 1)); bad=$((bad + 1)); echo "not ok $n - $*"; }
skip() { n=$((n + 1)); echo "ok $n - $* # SKIP"; }

# succeeds NAME COMMAND...: exit 0; stdout in $T/out, stderr in $T/err
succeeds() { exits 0 "$@"; }
# exits CODE NAME COMMAND...
exits() {
	local want=$1 name=$2 rc
	shift 2
	"$@" >"$T/out" 2>"$T/err" </dev/null
	rc=$?
	if [ $rc -eq "$want" ]; then ok "$name"; else not_ok "$name (exit $rc, want $want)"; sed 's/^/# /' "$T/err" | tail -5; fi
}
# says NAME PATTERN: the last stderr has one line matching the extended regular expression
says() { if grep -qE -- "$2" "$T/err"; then ok "$1"; else not_ok "$1"; sed 's/^/# /' "$T/err" | tail -5; fi; }
# prints NAME PATTERN: the last stdout has a match
prints() { if grep -qE -- "$2" "$T/out"; then ok "$1"; else not_ok "$1"; sed 's/^/# /' "$T/out" | tail -8; fi; }
# is NAME GOT WANT
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1 (got '$2', want '$3')"; fi; }
# near NAME GOT WANT RELATIVE
near() {
	if awk -v a="$2" -v b="$3" -v r="$4" 'BEGIN { d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && b != "" && d <= r * m) }'; then
		ok "$1"
	else not_ok "$1 (got '$2', want '$3' within $4)"; fi
}
# json FILE KEY: the value of a top-level key of one-line or indented JSON
json() { sed -n 's/.*"'"$2"'": *\("[^"]*"\|[^,}]*\).*/\1/p' "$1" | head -n 1 | tr -d '"'; }
# where MODEL TENSOR: FROM TO, its bytes in the folder's model.safetensors
where() {
	local f=$1/model.safetensors size
	size=$(od -An -tu4 -N4 "$f" | tr -d ' ')
	head -c $((8 + size)) "$f" | tail -c "$size" | grep -o "\"$2\":{[^}]*}" | tr -d ' ' |
		sed 's/.*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/' | awk -v start=$((8 + size)) '{ print $1 + start, $2 + start }'
}
# plant NAME TENSOR BYTES: the demo in $T/NAME, the first bytes of a tensor others (in printf's escapes)
plant() {
	local at
	mkdir "$T/$1" && cp "$DEMO"/* "$T/$1/" && chmod u+w "$T/$1/model.safetensors"
	read -r at _ < <(where "$DEMO" "$2")
	printf "$3" | dd of="$T/$1/model.safetensors" bs=1 seek="$at" conv=notrunc 2>/dev/null
}
done_testing() { echo "1..$n"; exit $((bad > 0)); }
