/* Which files a checkpoint is read from, so that none of them is written over. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/hf.h"

enum { INDEX_MAX = 1 << 28, SPLIT_MAX = 1000 };

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);
	return n > k && !strcmp(name + n - k, suffix);
}

/* By its name a file that some reader of such folders takes; a report, say, may well lie beside a model. */
static bool is_model_file(const char *name)
{
	static const char *const suffixes[] = { ".safetensors", ".bin", ".model", ".jinja", ".index.json" };
	static const char *const others[] = { "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
					      "chat_template.json", "preprocessor_config.json" };
	bool found = false;
	for (unsigned i = 0; !found && i < sizeof suffixes / sizeof *suffixes; i++)
		found = has_suffix(name, suffixes[i]);
	for (unsigned i = 0; !found && i < sizeof others / sizeof *others; i++)
		found = !strcmp(name, others[i]);
	for (unsigned i = 0; !found && i < side_row_count; i++)
		found = !strcmp(name, side_rows[i].name);
	return found;
}

static bool same(const char *dir, const char *name, const char *path)
{
	char *file = path_join(dir, name);
	bool found = file && file_same(file, path);
	free(file);
	return found;
}

/* Shards may have any name, which only the index tells. */
static bool in_index(const char *dir, const char *path)
{
	char *name = path_join(dir, "model.safetensors.index.json");
	struct strbuf text = { 0 };
	struct json *root = NULL;
	const char *last = "";
	bool found = false;
	if (name && file_exists(name) && !file_read(name, &text, INDEX_MAX, NULL) && text.len)
		root = json_parse(text.data, text.len, NULL);
	for (const struct json *j = json_first(json_get(root, "weight_map")); j && !found; j = json_next(j)) {
		const char *shard = json_string(j);
		if (!shard || !strcmp(shard, last)) /* they come in runs */
			continue;
		last = shard;
		found = same(dir, shard, path);
	}
	json_free(root);
	strbuf_release(&text);
	free(name);
	return found;
}

static bool in_folder(const char *dir, const char *path)
{
	DIR *d = opendir(dir);
	bool found = false;
	for (struct dirent *x; d && !found && (x = readdir(d));)
		found = is_model_file(x->d_name) && same(dir, x->d_name, path);
	if (d)
		closedir(d);
	return found || in_index(dir, path);
}

/* The config and the tokenizer beside a single safetensors file. */
static bool beside(const char *input, const char *path)
{
	char *dir = path_dirname(input);
	bool found = false;
	for (unsigned i = 0; dir && !found && i < side_row_count; i++)
		found = same(dir, side_rows[i].name, path);
	free(dir);
	return found;
}

/* Another part of "x-00001-of-00003.gguf". */
static bool in_split(const char *input, const char *path)
{
	static const char of[] = "-of-";
	size_t n = strlen(input), tail = sizeof "00001-of-00003.gguf" - 1;
	char *name = n > tail ? strdup(input) : NULL, *number = name ? name + n - tail : NULL;
	unsigned count = number && !memcmp(number + 5, of, 4) ? (unsigned)strtoul(number + 9, NULL, 10) : 0;
	bool found = false;
	for (unsigned i = 1; i <= count && i <= SPLIT_MAX && !found; i++) {
		char digits[16];
		snprintf(digits, sizeof digits, "%05u", i);
		memcpy(number, digits, 5);
		found = file_same(name, path);
	}
	free(name);
	return found;
}

bool checkpoint_reads(const char *input, const char *path)
{
	if (!file_exists(path))
		return false;
	if (file_same(input, path))
		return true;
	if (file_is_dir(input))
		return in_folder(input, path);
	return has_suffix(input, ".safetensors") ? beside(input, path) : has_suffix(input, ".gguf") && in_split(input, path);
}
