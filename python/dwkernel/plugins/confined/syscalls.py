"""Numbers of system calls by name, where the filter needs them: x86-64 and aarch64.

From the kernel's tables (`arch/x86/entry/syscalls/syscall_64.tbl`,
`include/uapi/asm-generic/unistd.h`).
From 424 on both are the same. A name that one of the two never had stands there as `-`.
"""

from __future__ import annotations

__all__ = ["AUDIT_ARCHES", "KNOWN_MAX", "numbers"]

# What the kernel calls the architectures in what it shows to a filter (linux/audit.h).
AUDIT_ARCHES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
# Calls above it are younger than this table (Linux 6.10): nobody has judged them.
KNOWN_MAX = 462

_TABLE = """
socket 41 198 | socketpair 53 199 | connect 42 203 | bind 49 200 | listen 50 201
clone 56 220 | fork 57 - | vfork 58 - | execve 59 221 | execveat 322 281 | clone3 435 435
kill 62 129 | tkill 200 130 | tgkill 234 131 | rt_sigqueueinfo 129 138 | rt_tgsigqueueinfo 297 240
pidfd_send_signal 424 424 | pidfd_open 434 434 | pidfd_getfd 438 438
prctl 157 167 | prlimit64 302 261 | fcntl 72 25 | ioctl 16 29
sched_setaffinity 203 122 | sched_setscheduler 144 119 | sched_setparam 142 118
sched_setattr 314 274 | setpriority 141 140 | ioprio_set 251 30
setsid 112 157 | setpgid 109 154
ptrace 101 117 | process_vm_readv 310 270 | process_vm_writev 311 271 | kcmp 312 272
process_madvise 440 440 | process_mrelease 448 448 | perf_event_open 298 241
mount 165 40 | umount2 166 39 | pivot_root 155 41 | chroot 161 51 | move_mount 429 429
open_tree 428 428 | fsopen 430 430 | fsconfig 431 431 | fsmount 432 432 | fspick 433 433
mount_setattr 442 442 | statmount 457 457 | listmount 458 458
swapon 167 224 | swapoff 168 225 | reboot 169 142 | sethostname 170 161 | setdomainname 171 162
init_module 175 105 | delete_module 176 106 | finit_module 313 273
kexec_load 246 104 | kexec_file_load 320 294 | bpf 321 280
keyctl 250 219 | add_key 248 217 | request_key 249 218
unshare 272 97 | setns 308 268 | io_uring_setup 425 425 | io_uring_enter 426 426
io_uring_register 427 427 | io_setup 206 0 | io_submit 209 2 | userfaultfd 323 282
acct 163 89 | quotactl 179 60 | quotactl_fd 443 443 | iopl 172 - | ioperm 173 - | modify_ldt 154 -
personality 135 92 | open_by_handle_at 304 265 | name_to_handle_at 303 264 | lookup_dcookie 212 18
syslog 103 116 | settimeofday 164 170 | clock_settime 227 112 | adjtimex 159 171
clock_adjtime 305 266 | vhangup 153 58 | uselib 134 - | ustat 136 - | sysfs 139 - | _sysctl 156 -
migrate_pages 256 238 | move_pages 279 239 | mbind 237 235 | set_mempolicy 238 237
memfd_create 319 279 | memfd_secret 447 447 | seccomp 317 277
shmget 29 194 | shmat 30 196 | shmctl 31 195 | semget 64 190 | semop 65 193 | semctl 66 191
semtimedop 220 192 | msgget 68 186 | msgsnd 69 189 | msgrcv 70 188 | msgctl 71 187
mq_open 240 180 | mq_unlink 241 181 | fanotify_init 300 262 | inotify_add_watch 254 27
chmod 90 - | fchmod 91 52 | fchmodat 268 53 | fchmodat2 452 452
chown 92 - | fchown 93 55 | lchown 94 - | fchownat 260 54
utime 132 - | utimes 235 - | futimesat 261 - | utimensat 280 88
setxattr 188 5 | lsetxattr 189 6 | fsetxattr 190 7
removexattr 197 14 | lremovexattr 198 15 | fremovexattr 199 16
truncate 76 45 | mknod 133 - | mknodat 259 33 | sync 162 81 | syncfs 306 267
setuid 105 146 | setgid 106 144 | setreuid 113 145 | setregid 114 143 | setresuid 117 147
setresgid 119 149 | setgroups 116 159 | setfsuid 122 151 | setfsgid 123 152 | capset 126 91
"""


def numbers(machine: str) -> dict[str, int]:
    """Return the table of an architecture as `platform.machine()` says it; empty if unknown."""
    if machine not in AUDIT_ARCHES:
        return {}
    column = list(AUDIT_ARCHES).index(machine) + 1
    rows = (entry.split() for line in _TABLE.strip().splitlines() for entry in line.split("|"))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
