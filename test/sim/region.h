/* Memory that can be put back as it was. While a region is open, all that is allocated comes from
 * one piece of memory (the linker's --wrap sends malloc and its like here), so that a world with
 * all it points to is saved and restored by copying bytes. One thread. */
#ifndef REGION_H
#define REGION_H

#include <stddef.h>

void region_start(void); /* a new, empty one; it is closed */
void region_open(void);
/* The same, but what is allocated meanwhile is not saved: what need not be there after a restore. */
void region_scratch(void);
void region_close(void);

struct image {
    char *bytes;
    size_t n, cap;
};
void region_save(struct image *image); /* overwrites it */
void region_restore(const struct image *image);

#endif
