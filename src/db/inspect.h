/*
 * inspect.h: the files of a store that nobody has open for writing, for those who look at them without opening a database.
 *
 * Layer 6. Directory, lock for reading, manifest; no log, no page store, no trees. Writes nothing.
 */
#ifndef QR_DB_INSPECT_H
#define QR_DB_INSPECT_H

struct qr_disk;
struct quire;

/* *ret_db has its files alone: db->files and db->checkpointer.record; also after a failure, for qr_db_inspect_close. disk: see
 * qr_db_files_open. 0, NOT_FOUND, or as quire_open. */
int qr_db_inspect_open(const char *path, struct qr_disk *disk, struct quire **ret_db);

/* NULL is fine. */
void qr_db_inspect_close(struct quire *db);

#endif
