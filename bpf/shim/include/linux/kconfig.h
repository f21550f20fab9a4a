/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* BCC includes this first and wants to know that the kernel has bpf(2). */
#define CONFIG_BPF_SYSCALL 1
