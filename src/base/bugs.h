/*
 * Planted bugs: ways to break the engine on purpose, so that the tests can show that they would notice.
 *
 * Layer 0 (base). `if (QR_BUG(unseal))` is the constant 0 in the library that users get. In the testing library it is a
 * flag, set by qr_bug_set or by the environment variable QUIRE_PLANTED_BUG (one name, looked up when the flag is first
 * used). A name that is not in the list does not compile.
 */
#ifndef QR_BASE_BUGS_H
#define QR_BASE_BUGS_H

/* One line a bug: X(name) and what goes wrong with it. */
#define QR_BUG_LIST(X)                                                                                                 \
    X(skip_growing_lsn)         /* a write installs below the page's max_lsn */                                        \
    X(recompute_max_lsn)        /* consolidation takes max_lsn from the surviving records */                           \
    X(drop_tombstone_over_base) /* a deletion is collected while an older value lies below it */                       \
    X(post_separator_late)      /* a split never posts its separator, walkers do not help */                           \
    X(unseal)                   /* a sealed page takes writes again */                                                 \
    X(reuse_id_early)           /* a page id is handed out before its grace period */                                  \
    X(skip_floor)               /* a blind write ignores the floor of an evicted page */                               \
    X(ignore_snapshot_registry) /* consolidation collects versions that a snapshot sees */                             \
    X(forget_high_key)          /* a walker does not go right beyond the high key */                                   \
    X(reclaim_without_grace)    /* retired memory is freed at once */                                                  \
    X(lost_cas_ignored)         /* a write whose CAS lost reports success */                                           \
    X(blind_write_by_sibling)   /* a leaf is written blind with the bounds of a stale parent */                        \
    X(collect_above_safe)       /* versions above the safe version are collected */                                    \
    X(keep_stale_summary)       /* a delta keeps the chain summary of the delta below it */                            \
    X(absorb_twice)             /* a merge does not look whether the left page has absorbed already */                 \
    X(read_absorbed)            /* a reader without memory goes by a sealed page that may have been absorbed */        \
    X(post_over_absorbed)       /* the entry of an absorbed page is taken for a separator with the same key */         \
    X(post_to_dead_child)       /* a separator is posted without a look whether its page is live */                    \
    X(forwarded_followed)       /* a forwarding word to which an entry leads is followed */                            \
    X(mark_neighbours)          /* of two neighbouring entries both may be marked as being merged */                   \
    X(collapse_again)           /* a collapse does not look whether somebody has finished it */                        \
    X(evict_unposted)           /* a page leaves memory before its right sibling's separator is posted */              \
    X(area_overlap)             /* two writers get the same part of a delta area */                                    \
    X(stale_condition)          /* a conditional write goes on top of a newer version of its key */                    \
    X(stub_is_whole)            /* what a stub does not know counts as absent */                                       \
    X(snapshot_no_wait)         /* a snapshot is handed out while writes below it are open */                          \
    X(generation_ignored)       /* a write that drops what it replaces does not look for new snapshots */              \
    X(free_list_untagged)       /* the free list of page ids takes a head that was there before */                     \
    X(log_ack_unsynced)         /* a write is called durable without a sync */                                         \
    X(log_ack_unwritten)        /* a write to a buffered log is called safe before it is written out */                \
    X(log_past_open_slot)       /* what lies behind an open slot window is called durable */                           \
    X(log_header_unsynced)      /* a segment takes frames before its header is synced */                               \
    X(log_name_unsynced)        /* a segment takes frames before its name is synced */                                 \
    X(log_older_attempt)        /* of two segments made for one place the one that failed may count */                 \
    X(dir_sync_retried)         /* after a failed sync of the directory the next one is believed */                    \
    X(log_sync_retried)         /* after a failed sync the next one is believed */                                     \
    X(log_mark_forgotten)       /* a failed sync leaves no mark in the segments */                                     \
    X(log_mark_ignored)         /* recovery trusts the page cache of a log that is marked */                           \
    X(log_not_rewritten)        /* after a failed sync recovery syncs what it read, and does not write it again */     \
    X(log_frame_unchecked)      /* a frame is taken without its checksum */                                            \
    X(log_hole_ends)            /* in the same boot a hole is taken for the end */                                     \
    X(log_tentative_ends)       /* in the same boot an undecided frame is taken for the end */                         \
    X(log_condition_ignored)    /* an undecided conditional write is done whether or not its condition holds */        \
    X(log_hole_passed)          /* after power loss holes are passed over */                                           \
    X(log_undecided_kept)       /* what recovery decided is not written to the log */                                  \
    X(log_repair_unsynced)      /* what recovery decided is not synced */                                              \
    X(log_tail_unsynced)        /* recovery believes what is in the page cache alone */                                \
    X(log_read_beyond_end)      /* an old incarnation is read beyond its recorded end */                               \
    X(lsn_reused)               /* after recovery LSNs go on at the end of what was found */                           \
    X(incarnation_lost)         /* a manifest that is written anew lacks an older incarnation */                       \
    X(manifest_header_first)    /* the header of a new manifest is written at once, not its magic first */             \
    X(manifest_new_unsynced)    /* a manifest takes its name before it is synced */                                    \
    X(manifest_unsettled)       /* a manifest is appended to without making durable what was read of it */             \
    X(manifest_torn_kept)       /* the next append to a manifest leaves the rest of a torn one behind it */            \
    X(manifest_names_unsynced)  /* a new manifest takes the name without a sync of the directory */                    \
    X(manifest_append_unsynced) /* an append to the manifest is acknowledged without a sync */                         \
    X(manifest_half_append)     /* the records of a torn append count that are whole */                                \
    X(store_data_unsynced)      /* a checkpoint names images that were not synced */                                   \
    X(store_names_unsynced)     /* a checkpoint names segments whose names were not synced */                          \
    X(store_released_early)     /* segments are released before the checkpoint's record is durable */                  \
    X(store_release_pending)    /* what only the current mapping names does not keep a segment */                      \
    X(store_abandon_loses)      /* the changes of an abandoned checkpoint are lost */                                  \
    X(cleaned_early)            /* an opening removes files before it has recorded its incarnation */                  \
    X(reserve_late)             /* large values take the space of the reserve for a full disk */                       \
    X(spares_kept)              /* files that are kept to be used again stay when somebody finds no space */           \
    X(space_not_awaited)        /* while space is short writers go on without a checkpoint */                          \
    X(cleaned_late)             /* an opening takes space before it removes files that nothing needs */                \
    X(log_released_early)       /* the log is released before the checkpoint's record is durable */                    \
    X(checkpoint_slots)         /* replay_from does not look at open slots and large writes under way */               \
    X(checkpoint_pages)         /* replay_from does not look at what pages have in no image */                         \
    X(checkpoint_order)         /* replay_from looks at the log's tail after the pages */                              \
    X(checkpoint_changes)       /* a split does not note what it changed for the next capture */                       \
    X(checkpoint_restless)      /* a capture does not wait for structure changes to end */                             \
    X(checkpoint_parts)         /* of a large write only its own LSN counts, not that of its first PART */             \
    X(replay_keys_unsorted)     /* records of the log whose keys begin alike are applied in the order of the log */    \
    X(replay_judged_late)       /* records are judged by the max LSN that their page has by then */                    \
    X(store_resume_over)        /* after an opening batches go over those that are there */                            \
    X(blob_unsynced)            /* the log is synced without the blobs that its frames name */                         \
    X(blob_unchecked)           /* a blob is read without a look at its checksums */                                   \
    X(blob_released_early)      /* a segment of blobs is released when a part of it is dead */                         \
    X(blob_not_rewritten)       /* after a failed sync recovery does not write again the blobs that it takes */        \
    X(blob_mark_forgotten)      /* a sync of blobs that fails beside the log's leaves no mark in the log */             \
    X(log_gap_ends)             /* a segment of the log that is missing in front of others is taken for the end */     \
    X(repair_worse_image)       /* of two images for a key repair takes the one that knows less of it */               \
    X(repair_dead_image)        /* repair takes images that are newer than what the log says */                        \
    X(repair_older_image)       /* repair takes an older image of a leaf that is damaged */                            \
    X(repair_log_skipped)       /* repair takes what is in the newest leaf for being in all */                         \
    X(repair_condition_ignored) /* repair does undecided conditional writes whether or not their condition holds */    \
    X(repair_hidden_told)       /* repair tells of the loss of values that were replaced */                       \
    X(blob_dead_beyond)         /* a checkpoint without log has blobs as dead that died after its LSN */               \
    X(as_of_unfiltered)         /* images as of an LSN have what was written later, too */                             \
    X(equal_not_held)           /* a newer equal version hides the one that a checkpoint without log needs */          \
    X(lsn_range_unused)         /* after an unclean end without log LSNs go on at the last checkpoint */

#ifdef QR_TESTING

#include <stdatomic.h>

#define QR_BUG_ID(name) QR_BUG_##name,
enum qr_bug { QR_BUG_LIST(QR_BUG_ID) QR_BUG_COUNT };
#undef QR_BUG_ID

enum qr_bug_state { QR_BUG_UNKNOWN = 0, QR_BUG_OFF = 1, QR_BUG_ON = 2 };
extern _Atomic int qr_bug_states[QR_BUG_COUNT];

/* Looks a flag up in the environment; called at its first use. Aborts if the environment names no known bug. */
int qr_bug_first_use(enum qr_bug bug);

/* Sets a flag, whatever the environment says. -1 if there is no bug of that name, else 0. */
int qr_bug_set(const char *name, int on);

static inline int qr_bug_is_on(enum qr_bug bug)
{
    /* relaxed: tests set flags before they start the threads that look at them */
    int state = atomic_load_explicit(&qr_bug_states[bug], memory_order_relaxed);
    return state == QR_BUG_UNKNOWN ? qr_bug_first_use(bug) : state == QR_BUG_ON;
}

#define QR_BUG(name) (qr_bug_is_on(QR_BUG_##name))

#else
/* The name is checked against nothing here; the testing library is always built beside this one. */
#define QR_BUG(name) 0
#endif

#endif
