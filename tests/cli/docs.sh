# The commands that README and docs show do what they show.
. "$(dirname "$0")/lib.sh"
# the same commands run in the other tests; under a sanitizer these would only take minutes more
if [ -n "${SANITIZED:-}" ]; then
	skip "the commands of the documents"
	done_testing
fi
for doc in README.md docs/*.md docs/formats/*.md; do
	grep -q '^```console' "$doc" 2>/dev/null || continue
	exits 0 "$doc: its commands print what it says" tests/console check "$doc"
	sed 's/^/# /' "$T/out"
done
done_testing
