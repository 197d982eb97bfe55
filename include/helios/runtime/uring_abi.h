// Constants of the io_uring interface that are newer than liburing 2.3 (Debian 12), each with its
// kernel version.
//
// Only what we use. Numbers are the kernel's ABI (include/uapi/linux/io_uring.h) and never change.
#pragma once

#include <liburing.h>

// 6.15. io_uring_params.features: ENTER_NO_IOWAIT is understood.
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

// 6.15. io_uring_enter: a wait is not accounted as iowait.
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
