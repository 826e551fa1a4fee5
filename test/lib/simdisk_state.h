/*
 * simdisk_state.h: what a simulated disk is made of.
 *
 * Test library, for simdisk*.c only. Functions below are called with the disk's mutex held, but for sim_begin.
 *
 * A file is an inode: cached and durable content, and between them the operations since the last good sync, oldest
 * first. STATE-1  durable + all operations, in order, = cached, once stores were observed. STATE-2  Bytes of `cached`
 * and `durable` beyond their sizes are zero. STATE-3  The operations keep all bytes that were written: every version of
 * a sector can be rebuilt.
 */
#ifndef TEST_LIB_SIMDISK_STATE_H
#define TEST_LIB_SIMDISK_STATE_H

#include <pthread.h>

#include "random.h"
#include "simdisk.h"

/* ---- Files ------------------------------------------------------------------------------------------------------ */

enum sim_op_kind {
    SIM_WRITE,  /* bytes at offset; the file reaches at least so far */
    SIM_STORE,  /* bytes of one sector; the size is not touched */
    SIM_RESIZE, /* to `offset`, from `size_bytes` */
};

struct sim_op {
    enum sim_op_kind kind;
    bool doubtful; /* a sync that should have covered it failed */
    bool new_space; /* of a write: it made space */
    uint64_t sequence;
    uint64_t offset, size_bytes;
    uint8_t *bytes;
};

struct sim_inode {
    struct sim_inode *next;
    uint64_t number;
    uint8_t *cached, *durable; /* SIMDISK_FILE_MAX_BYTES of address space each */
    uint8_t *observed;         /* cached as far as operations explain it; NULL: never mapped */
    uint64_t size_bytes, durable_size_bytes;
    uint64_t mapped_end; /* stores may lie below it */
    uint64_t touched_end; /* behind it no byte of the three was ever written */
    uint8_t *blocks;      /* a bit for each: whether it has space */
    struct sim_op *ops;
    size_t op_count, op_capacity;
    unsigned handle_count;
    int late_error; /* of a sync that has answered 0; the next one answers it */
};

static inline bool sim_has_block(const struct sim_inode *inode, uint64_t block)
{
    return (inode->blocks[block / 8] >> block % 8 & 1) != 0;
}

static inline void sim_set_block(struct sim_inode *inode, uint64_t block, bool has_space)
{
    uint8_t bit = (uint8_t)(1u << block % 8);
    inode->blocks[block / 8] = (uint8_t)(has_space ? inode->blocks[block / 8] | bit : inode->blocks[block / 8] & ~bit);
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

struct sim_name {
    char *name;
    uint64_t inode;
};

struct sim_names {
    struct sim_name *names;
    size_t count, capacity;
};

enum sim_name_op_kind { SIM_MAKE_DIR, SIM_CREATE, SIM_UNLINK, SIM_RENAME };

struct sim_name_op {
    enum sim_name_op_kind kind;
    bool doubtful;
    uint64_t sequence;
    char *name, *to;
    uint64_t inode;
};

struct sim_dir {
    struct sim_dir *next;
    char *path;
    uint64_t number;
    bool durable_exists;
    struct sim_names cached, durable;
    struct sim_name_op *ops;
    size_t op_count, op_capacity;
};

/* ---- Handles ---------------------------------------------------------------------------------------------------- */

struct sim_dir_handle {
    struct qr_dir dir;
    struct sim_dir_handle *next;
    struct sim_dir *of;
    bool read_only;
    bool locked, shared;
    uint64_t lock_inode; /* locked: the file's; 0: there was none, who only reads makes none */
};

struct sim_file_handle {
    struct qr_file file;
    struct sim_inode *inode;
    char *name; /* as it was opened, for events */
    bool writable, direct;
};

/* ---- The disk --------------------------------------------------------------------------------------------------- */

#define SIM_STALE_BYTES 16384u

struct sim_fault {
    struct simdisk_fault plan;
    uint64_t seen, fired;
};

struct simdisk {
    struct qr_disk disk;
    pthread_mutex_t mutex;
    struct simdisk_facts facts;
    struct sim_dir *dirs;
    struct sim_inode *inodes;
    struct sim_dir_handle *dir_handles;
    uint64_t file_handle_count;
    uint64_t next_number;   /* of inodes */
    uint64_t next_sequence; /* of unsynced operations */
    uint64_t mistakes;
    uint64_t counts[SIMDISK_KINDS];
    struct sim_fault faults[SIMDISK_FAULTS_MAX];
    unsigned fault_count;
    simdisk_hook *hook;
    void *hook_context;
    uint8_t stale[SIM_STALE_BYTES]; /* what was deleted or cut last */
    uint64_t stale_bytes;           /* whole sectors; 0: nothing was */
};

static inline struct simdisk *sim_of(struct qr_disk *disk)
{
    return (struct simdisk *)disk; /* its first member */
}

/* Memory, or the end of the program: the harness is not what is tested. Zeroed. */
void *sim_alloc(size_t size);
char *sim_string(const char *text);
/* A place for one more entry at the end of an array. */
void *sim_grow(void *array, size_t count, size_t *capacity, size_t entry_size);

/* simdisk.c */
struct sim_verdict {
    int error;           /* 0 or a negated errno */
    uint64_t most_bytes; /* that the operation may do */
};
/* Before each operation, without the mutex. part: of a transfer. */
struct sim_verdict sim_begin(struct simdisk *disk, enum simdisk_kind kind, const char *name, uint64_t offset,
                             uint64_t size_bytes, bool part);

void sim_note_effect(enum simdisk_effect effect);

/* simdisk_table.c */
extern const struct qr_disk_ops sim_ops;

/* simdisk_inode.c */
struct sim_inode *sim_inode_create(struct simdisk *disk, uint64_t number);
void sim_inode_destroy(struct simdisk *disk, struct sim_inode *inode);
struct sim_inode *sim_inode_find(const struct simdisk *disk, uint64_t number);
/* Gives up inodes that nothing can reach any more. */
void sim_inodes_reclaim(struct simdisk *disk);
uint64_t sim_inode_bytes(const struct sim_inode *inode); /* of its blocks */
uint64_t sim_used_bytes(const struct simdisk *disk);
bool sim_inode_has_space(const struct sim_inode *inode, uint64_t offset, uint64_t size_bytes);
/* Makes space for the range. Bytes from its beginning that have space: less than size_bytes on a full disk. */
uint64_t sim_inode_provide(struct simdisk *disk, struct sim_inode *inode, uint64_t offset, uint64_t size_bytes);
/* The same for all of it or nothing: 0 or -ENOSPC. */
int sim_inode_provide_all(struct simdisk *disk, struct sim_inode *inode, uint64_t offset, uint64_t size_bytes);
void sim_inode_read(const struct sim_inode *inode, void *memory, uint64_t offset, uint64_t size_bytes);
/* new_space: sim_inode_provide had to make space for it. */
void sim_inode_write(struct simdisk *disk, struct sim_inode *inode, const void *memory, uint64_t offset,
                     uint64_t size_bytes, bool new_space);
void sim_inode_resize(struct simdisk *disk, struct sim_inode *inode, uint64_t size_bytes);
void sim_inode_map(struct sim_inode *inode, uint64_t end);
void sim_inode_observe(struct simdisk *disk, struct sim_inode *inode);
/* A sync with the fault's verdict (0: none): what it does and answers, SIMDISK-3. */
int sim_inode_sync_with(struct simdisk *disk, struct sim_inode *inode, int error);
/* What the operation does to [begin, end) of a content. */
void sim_op_apply(const struct sim_op *op, uint8_t *content, uint64_t begin, uint64_t end);
uint64_t sim_op_size_after(const struct sim_op *op, uint64_t size_bytes);
/* An exact copy, without handles. */
void sim_inode_clone(struct simdisk *disk, const struct sim_inode *inode);

/* simdisk_names.c */
struct sim_dir *sim_dir_find(const struct simdisk *disk, const char *path);
struct sim_dir *sim_dir_create(struct simdisk *disk, const char *path, uint64_t number);
void sim_dir_destroy(struct simdisk *disk, struct sim_dir *dir);
uint64_t sim_names_find(const struct sim_names *names, const char *name); /* 0: none */
bool sim_names_have_inode(const struct sim_names *names, uint64_t inode);
void sim_names_copy(struct sim_names *to, const struct sim_names *from);
/* Does it to the cached names, and notes it. `to` for RENAME. */
void sim_dir_change(struct simdisk *disk, struct sim_dir *dir, enum sim_name_op_kind kind, const char *name,
                    const char *to, uint64_t inode);
void sim_name_op_apply(const struct sim_name_op *op, struct sim_names *names, bool *exists);
void sim_dir_sync(struct sim_dir *dir);
void sim_dir_fail_sync(struct sim_dir *dir);
void sim_dir_clone(struct simdisk *disk, const struct sim_dir *dir);

#endif
