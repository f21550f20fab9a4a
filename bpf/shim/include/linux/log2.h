/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* BCC's helpers include this; nothing in it is used. */
