# The commands that the documents show print what they show.
. "$(dirname "$0")/lib.sh"
for doc in docs/*.md docs/formats/*.md; do
	grep -q '^```console' "$doc" 2>/dev/null || continue
	exits 0 "$doc: its commands print what it says" tests/console check "$doc"
	sed 's/^/# /' "$T/out"
done
done_testing
