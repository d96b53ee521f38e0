"""Tables of registered names, such as those of modalities and regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from synermedgen_jax.core.errors import UserError

Named = TypeVar('Named', bound='Name')


class _Iterable(type):
  """Makes a class iterable over its registered members, oldest first."""

  def __iter__(cls: type[Named]) -> Iterator[Named]:
    return iter(cls.members.values())


class Name(str, metaclass=_Iterable):
  """A registered name: a string, and one object per name.

  `Modality('ct')` returns the registered modality or raises UserError. A
  subclass has a table `members` of its own.
  """

  members: ClassVar[dict[str, Any]]
  label: str

  def __new__(cls, name: str):
    try:
      return cls.members[name]
    except KeyError:
      raise UserError(
        f'Unknown {cls.__name__.lower()} {name!r}: expected one of '
        f'{", ".join(cls.members)}.'
      ) from None

  @property
  def value(self) -> str:
    """The name as a plain string, as in files and on flags."""
    return str(self)

  def __repr__(self) -> str:
    return f'{type(self).__name__}({str(self)!r})'

  def __reduce__(self):
    return type(self), (str(self),)

  def __deepcopy__(self, memo):
    return self

  @classmethod
  def register(cls, name: str, **fields: Any):
    """Adds a name.

    Args:
      name: lower-case letters, digits and _.
      **fields: attributes of the object.

    Raises:
      UserError: the name is taken or has other characters.
    """
    if name in cls.members or not name.isidentifier() or name != name.lower():
      raise UserError(
        f'{cls.__name__} {name!r}: expected a new name of lower-case letters, '
        'digits and _.'
      )
    member = str.__new__(cls, name)
    for field, value in fields.items():
      setattr(member, field, value)
    cls.members[name] = member
    return member
