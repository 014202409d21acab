#ifndef QUIRE_FORMATS_CONFIG_TEXT_H
#define QUIRE_FORMATS_CONFIG_TEXT_H
/* The text of a config.json, which is kept as it was where it can be. */
#include "base/strbuf.h"
#include "formats/checkpoint.h"

/*
 * A config.json's text with the value of a top-level key replaced by another of its kind, as JSON: "\"float16\"", "false".
 * Left alone when the key is missing, null or of another kind.
 */
void config_text_replace(const char *text, size_t len, const char *key, const char *value, struct strbuf *out);

/* Does this config.json describe the same model as config? ERR_NOMEM. */
int config_text_describes(const struct side_file *f, const struct config *config, bool *same, struct err *e);

#endif
