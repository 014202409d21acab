#ifndef QUIRE_FORMATS_HF_H
#define QUIRE_FORMATS_HF_H
/* What the Hugging Face folder and the single safetensors file share, and the table of side files. */
#include "formats/checkpoint.h"

struct side_row {
	const char *name;
	size_t limit;      /* bytes; far above what exists, against nonsense */
};
extern const struct side_row side_rows[];
extern const unsigned side_row_count;

/* Where named chat templates lie: SIDE_TEMPLATES "NAME.jinja". */
#define SIDE_TEMPLATES "additional_chat_templates/"
/* The name of a side file, as a folder may hold it: nothing that leads elsewhere. */
bool side_name_valid(const char *name);

/* Writers, hf_write.c; weights in codes are packed as k says. */
struct packing;
int hf_create(const struct packing *k, const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);
int st_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);

/* What write_options.code writes beside the weights, and what config.json says of it. */
#define HF_CODE_FILE "modeling_quire.py"
int hf_code_text(struct strbuf *out, struct err *e);
int hf_code_config(const struct config *config, struct strbuf *text, struct err *e);

#endif
