-- The grant as it was read is compared whole: one that was ended or renewed since stays as it is.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[5], 'LT')
redis.call('SET', KEYS[2], ARGV[6], 'EX', ARGV[7])
redis.call('SET', KEYS[4], ARGV[8], 'EX', ARGV[9])
redis.call('SET', KEYS[5], ARGV[12], 'EX', ARGV[11])
redis.call('SET', KEYS[6], ARGV[10], 'EX', ARGV[11])
return 1
