/* A file system without locks, such as NFS without lockd: preloaded, it refuses every lock with ENOLCK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

static int refuse(void)
{
    errno = ENOLCK;
    return -1;
}

static int is_lock(int command)
{
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK || command == F_OFD_SETLK ||
           command == F_OFD_SETLKW || command == F_OFD_GETLK;
}

int flock(int file, int operation)
{
    (void)file, (void)operation;
    return refuse();
}

int lockf(int file, int command, off_t length)
{
    (void)file, (void)command, (void)length;
    return refuse();
}

/* fcntl has an argument of the size of a pointer, whatever the command. */
#define FORWARD(name)                                                              \
    int name(int file, int command, ...)                                           \
    {                                                                              \
        va_list arguments;                                                         \
        va_start(arguments, command);                                              \
        void *argument = va_arg(arguments, void *);                                \
        va_end(arguments);                                                         \
        if (is_lock(command))                                                      \
            return refuse();                                                       \
        return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name))(file, command, argument); \
    }

FORWARD(fcntl)
FORWARD(fcntl64)
