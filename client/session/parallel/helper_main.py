"""A further process of a site's local step: one device, and its share of each batch.

It holds no data of its own: it gets the model's numbers and its rows in each step, and forgets
them. It ends with the process that started it, however that ends.
"""

import os
import sys
from multiprocessing.connection import Connection

from wardround.common.runtime.system.processes import be_first_to_end, end_with_parent
from wardround.common.runtime.system.signals import leave_signals_to_parent


def main(descriptor: int, parent: int) -> None:
    """Follow orders until the first process closes the socket."""
    end_with_parent(parent)
    be_first_to_end()
    leave_signals_to_parent()
    channel = Connection(descriptor)
    # Only now, so that the process ends with its parent from the first moment.
    from wardround.client.session.parallel.helper import Helper
    from wardround.client.session.parallel.orders import Failed
    from wardround.common.errors import WardroundError

    try:
        helper = Helper(channel.recv())
        channel.send("ready")
        while True:
            helper.follow(channel.recv())
    except EOFError:
        os._exit(0)  # at once: a group that others have left waits for them
    except WardroundError as error:
        channel.send(Failed(str(error)))
    except Exception as error:
        # Its text may hold what the patients' images hold; its type does not.
        channel.send(Failed(f"it met an error of type {type(error).__name__}"))
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
