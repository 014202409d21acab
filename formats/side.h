#ifndef QUIRE_FORMATS_SIDE_H
#define QUIRE_FORMATS_SIDE_H
/*
 * The side files of a checkpoint, as readers list them: a name, and how its bytes are got. They are read when somebody
 * asks for one (checkpoint_file), once, and not from several threads at a time.
 */
#include "formats/checkpoint.h"

/*
 * Fills data, with a NUL behind it, and size; memory from the arena. from: what side_add was given. Messages are whole:
 * they name the file.
 */
typedef int side_read(const void *from, struct arena *arena, struct side_file *out, struct err *e);

/* Lists one; name and from must live as long as the checkpoint. */
int side_add(struct checkpoint *c, const char *name, side_read *read, const void *from, struct err *e);
/* Copies a text, in the place of a file of that name where there is one. */
int side_put(struct checkpoint *c, const char *name, const char *data, size_t size, struct err *e);
void sides_free(struct sides *s); /* NULL is fine */

#endif
