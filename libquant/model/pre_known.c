/* To add a pre-tokenizer: a row in the table. */
#include "model/pre_known.h"

#include <stddef.h>
#include <string.h>

#define WORDS_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WORDS_DIGITS(digits) \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define WORDS_CASED(tail, digits) \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail "|" digits \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

static const struct pre_known known[] = {
	{ .name = "llama-bpe", .patterns = { WORDS_DIGITS("\\p{N}{1,3}") }, .ignore_merges = true, .add_bos = true },
	{ .name = "llama3", .patterns = { WORDS_DIGITS("\\p{N}{1,3}") }, .ignore_merges = true, .add_bos = true },
	{ .name = "llama-v3", .patterns = { WORDS_DIGITS("\\p{N}{1,3}") }, .ignore_merges = true, .add_bos = true },
	{ .name = "smaug-bpe", .patterns = { WORDS_DIGITS("\\p{N}{1,3}") } },
	{ .name = "dbrx", .patterns = { WORDS_DIGITS("\\p{N}{1,3}") } },
	{ .name = "qwen2", .patterns = { WORDS_DIGITS("\\p{N}") }, .normalizer = "NFC" },
	{ .name = "deepseek-r1-qwen", .patterns = { WORDS_DIGITS("\\p{N}") }, .normalizer = "NFC" },
	{ .name = "stablelm2", .patterns = { WORDS_DIGITS("\\p{N}") }, .normalizer = "NFC" },
	{ .name = "tekken", .patterns = { WORDS_CASED("", "\\p{N}") }, .ignore_merges = true, .add_bos = true },
	{ .name = "gpt-4o", .patterns = { WORDS_CASED(CONTRACTION, "\\p{N}{1,3}") } },
	{ .name = "gpt-2" }, { .name = "phi-2" }, { .name = "olmo" }, { .name = "jais" }, { .name = "mpt" },
	{ .name = "smollm", .digits = true }, { .name = "starcoder", .digits = true }, { .name = "codeshell", .digits = true },
	{ .name = "refact", .digits = true }, { .name = "command-r", .digits = true },
	{ .name = "default", .patterns = { "[\\p{P}\\$\\+<=>\\^~\\|]+", WORDS_GPT2, "\\p{N}+" } },
};

const struct pre_known *pre_known_find(const char *name)
{
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, name))
			return &known[i];
	return NULL;
}
