"""Operations on texts: alone, and from end to end beside ShareDB; `make bench-ot`."""
