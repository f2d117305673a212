"""Pictures of subreddits, by PRAW and with the user's own credentials."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bittern.errors import BitternError, ConfigurationError
from bittern.system import fileio
from bittern_train.data.fetch import USER_AGENT

# Where Reddit's pictures are; what is linked from elsewhere is not fetched.
HOSTS = {"i.redd.it", "preview.redd.it", "i.imgur.com"}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# What a file with credentials may hold; all of it goes to PRAW. The two addresses are for another server than Reddit's.
_KEYS = ("client_id", "client_secret", "username", "password", "user_agent", "reddit_url", "oauth_url")
_HELP = (
    "make an app of the kind `script` at https://www.reddit.com/prefs/apps, and put its client_id and client_secret "
    "under [reddit] into a file for --credentials, or into the environment as praw_client_id and praw_client_secret"
)
_MAX_BYTES = 64 * 1024


class Post(NamedTuple):
    """A picture that somebody has posted.

    Attributes:
        url: of the picture.
        author: name of the user; empty if the account is gone.
        permalink: address of the post.
        subreddit: its name.
        title: of the post.
    """

    url: str
    author: str
    permalink: str
    subreddit: str
    title: str


class Posts(NamedTuple):
    """What the posts of a subreddit are.

    Attributes:
        pictures: of the posts.
        removed: how many posts were removed or deleted.
        over_18: how many were left out because they are for adults.
        others: how many hold no picture: texts, videos, galleries, links to other sites.
    """

    pictures: list[Post]
    removed: int
    over_18: int
    others: int


def connect(credentials: Path | None) -> Any:
    """A `praw.Reddit` that only reads.

    Args:
        credentials: a file with client_id and client_secret under [reddit]; None for PRAW's own places.

    Raises:
        ConfigurationError: the file cannot be read, or there are no credentials; no secret is shown.
    """
    import praw
    from praw.exceptions import MissingRequiredAttributeException

    settings = {"user_agent": f"linux:{USER_AGENT} (collects pictures)", "check_for_updates": False}
    settings |= _read(credentials) if credentials is not None else {}
    try:
        reddit = praw.Reddit(**settings)
    except MissingRequiredAttributeException:
        raise ConfigurationError(f"no credentials for Reddit: {_HELP}") from None
    reddit.read_only = True
    return reddit


def _read(file: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(fileio.read_regular(file, _MAX_BYTES).decode())
        section = dict(parser["reddit"])
    except OSError as error:
        raise ConfigurationError(f"--credentials {file}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError, KeyError):  # whose texts quote the file
        raise ConfigurationError(
            f"--credentials {file}: expected a section [reddit] with client_id = ... and client_secret = ..."
        ) from None
    unknown = sorted(set(section) - set(_KEYS))
    if unknown or not section.get("client_id") or not section.get("client_secret"):
        what = f"unknown key {unknown[0]!r}" if unknown else "client_id or client_secret is missing"
        raise ConfigurationError(f"--credentials {file}: {what}; expected {', '.join(_KEYS[:5])}")
    return section


def posts(reddit: Any, subreddit: str, sort: str, limit: int, *, over_18: bool) -> Posts:
    """The newest or best posts of a subreddit.

    PRAW keeps to the rate that Reddit's answers allow.

    Args:
        reddit: see `connect`.
        subreddit: its name.
        sort: "new", "hot" or "top".
        limit: posts to look at; Reddit gives 1,000 at most.
        over_18: whether posts for adults count.

    Raises:
        BitternError: Reddit refuses, or cannot be reached.
    """
    pictures: list[Post] = []
    removed = adults = others = 0
    hosts = HOSTS | {urlsplit(reddit.config.reddit_url).netloc}
    for submission in _listed(reddit, subreddit, sort, limit):
        address = urlsplit(submission.url or "")
        if submission.removed_by_category or submission.author is None:
            removed += 1
        elif submission.over_18 and not over_18:
            adults += 1
        elif address.netloc in hosts and address.path.lower().endswith(_SUFFIXES):
            permalink = f"{reddit.config.reddit_url}{submission.permalink}"
            author = str(submission.author)
            pictures.append(Post(submission.url, author, permalink, subreddit, submission.title))
        else:
            others += 1
    return Posts(pictures, removed, adults, others)


def _listed(reddit: Any, subreddit: str, sort: str, limit: int) -> Iterator[Any]:
    from prawcore import exceptions

    try:
        yield from getattr(reddit.subreddit(subreddit), sort)(limit=limit)
    except exceptions.TooManyRequests as error:
        after = f" {error.retry_after} s" if error.retry_after else ""
        raise BitternError(f"r/{subreddit}: Reddit asks to wait{after}: start again then, it goes on") from None
    except (exceptions.NotFound, exceptions.Redirect):
        raise BitternError(f"r/{subreddit}: there is no such subreddit") from None
    except exceptions.Forbidden:
        raise BitternError(f"r/{subreddit}: Reddit does not show it to you (private?)") from None
    except (exceptions.OAuthException, exceptions.ResponseException) as error:
        code = getattr(getattr(error, "response", None), "status_code", 0)
        if code in (400, 401):
            raise ConfigurationError(f"Reddit refuses the credentials ({code}): {_HELP}") from None
        raise BitternError(f"r/{subreddit}: Reddit answers {code}: try again later") from None
    except exceptions.PrawcoreException as error:  # no connection, no JSON; its text may hold the request
        raise BitternError(f"r/{subreddit}: Reddit cannot be reached ({type(error).__name__})") from None
