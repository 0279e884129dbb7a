"""Which modules does ejected code consist of besides what is generated? These, copied as they are."""
