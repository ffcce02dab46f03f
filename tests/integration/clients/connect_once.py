"""Connects, asks for a size, tells it. usage: connect_once.py"""
import common

m = common.connect('get_task_queue')
q = m.get_task_queue()
common.say('size', q.qsize())
